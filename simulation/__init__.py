"""What would happen: the same engine, routing and scaling, on a virtual clock?"""
