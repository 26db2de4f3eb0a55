"""Every query, cut by noun: SQLAlchemy Core on one open connection. Rows become records here and nowhere
else.
"""
