"""End-to-end encryption for clients: frame formats, keys. The relay process never imports it (DESIGN rule 6)."""
