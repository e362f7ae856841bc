"""Files of requests that run when there is room: which batches are there, who runs them, what comes of their lines?"""
