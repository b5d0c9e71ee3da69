"""Report: one result as one self-contained HTML page, and its verdict as one line of text. No torch."""

from expunge.report.page import render as render
from expunge.report.verdict import verdict as verdict
