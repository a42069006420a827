"""Trajectories of OpenMM and LAMMPS through mdtraj: numbers, a verdict and one report.

report = analyze("run.dcd", "top.pdb", log="run.csv")
write_report(report, "report.html", "report.json")
"""

from so3k_md.analysis.report import analyze
from so3k_md.analysis.results import Analysis
from so3k_md.analysis.writing import write_report

__all__ = ["Analysis", "analyze", "write_report"]
