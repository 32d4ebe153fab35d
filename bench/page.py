"""placeholder"""
from pathlib import Path
def write(folder): 
    p = folder.path / "report.html"; p.write_text("x"); return p
def render(folders): return "x"
