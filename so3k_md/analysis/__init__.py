"""Analyses trajectories of OpenMM and LAMMPS: a verdict, numbers, and one report of both.

report = analyze("run.dcd", "top.pdb", log="run.csv")
write_report(report, "report.html", "report.json")
"""

from so3k_md.analysis.report import analyze
from so3k_md.analysis.results import Analysis
from so3k_md.analysis.writing import write_report

__all__ = ["Analysis", "analyze", "write_report"]
