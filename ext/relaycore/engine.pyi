"""Nothing of this module is visible from Python: drive it by worker.Worker or sansio.SansIoEngine."""
