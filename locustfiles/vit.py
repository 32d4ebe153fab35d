"""Locust users for a ViT (or any model) on Triton. Works by itself:

locust -f locustfiles/vit.py -H http://127.0.0.1:8000
locust -f locustfiles/vit.py --headless -u 4 -t 10s -H http://127.0.0.1:8000 --batch 8 --protocol both
"""

from bench.loadgen.locust.locustfile import register

# Locust looks for user classes here: TritonHttpUser and TritonGrpcUser.
globals().update(register())
