/* The start: the parts of the page, in the order they are drawn. */
import { drawCard } from "./card.js";
import { followAddress, redrawDialog, startDialog } from "./cell_dialog.js";
import { drawTable } from "./cell_table.js";
import { drawLimitCharts, drawOtherCharts, hideEmpty } from "./charts.js";
import { drawContents } from "./contents.js";
import { narrow } from "./dom.js";
import { startDownloads } from "./downloads.js";
import { drawHeatMap, startHeatMap } from "./heat_map.js";
import { drawLimit, rescaleLimit, startLimit } from "./limit.js";
import { drawRest } from "./plot.js";
import { drawReading } from "./reading.js";
import { addView, refresh } from "./state.js";
import { drawTailSection, startTail } from "./tail.js";
import { startPrinting, startTheme } from "./theme.js";
import { drawTrust } from "./trust.js";

const PAINT = 150; // milliseconds in which the browser paints what is in sight

addView(rescaleLimit);
addView(drawCard, { followsLimit: true });
addView(drawLimit, { followsLimit: true });
addView(drawHeatMap, { followsLimit: true });
addView(drawLimitCharts, { followsLimit: true });
addView(drawTrust);
addView(drawTable);
addView(drawOtherCharts);
addView(drawTailSection);
addView(redrawDialog);

startTheme();
startPrinting();
startLimit();
startHeatMap();
startTail();
startDialog();
startDownloads();

hideEmpty();
drawReading();
refresh();
drawContents();
followAddress();
document.documentElement.dataset.shown = "1";
performance.mark("text");
setTimeout(drawRest, PAINT);

/* Text is shorter on narrow screens, so that the page is drawn again when it becomes one. */
let wasNarrow = narrow();
window.addEventListener("resize", () => {
  if (wasNarrow === narrow()) return;
  wasNarrow = narrow();
  refresh();
});
