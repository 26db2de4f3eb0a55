"""Where versions, experiments and events are kept: the contract, the schema, the queries, the migrations.

Nothing here is imported before a store is opened: SQLAlchemy alone takes longer to import than the rest of
promptab.
"""
