"""What people read: tables, report, plots, model card. All plain data in, text or pictures out."""
