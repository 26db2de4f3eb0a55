"""Every public coroutine once, on things of its own, with what may be found after it was cancelled."""
