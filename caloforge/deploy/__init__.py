"""Models where they are used: exported files, and the C++ that reads them (`cpp/`)."""
