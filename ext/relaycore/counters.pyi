SCALARS: tuple[str, ...]
