"""Which files have tenants uploaded or been given, where do they lie, and how are they asked for?"""
