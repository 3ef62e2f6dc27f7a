//! The ledger against a model server.
