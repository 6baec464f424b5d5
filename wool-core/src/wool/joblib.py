"""Wool's workers as a backend of joblib, and so of scikit-learn.

    wool.joblib.register()
    with joblib.parallel_config("wool", n_jobs=4):
        GridSearchCV(…).fit(x, y)

The module imports joblib when `register` is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from wool._sync.executor import Executor

__all__ = ["register"]


def register(name: str = "wool") -> None:
    """Registers a backend with joblib, which has to be installed.

    `joblib.parallel_config(name, n_jobs=…, **options)` chooses it. The options are those of
    `wool.Executor`, of which each call of `joblib.Parallel` then has its own; or `executor=`, one
    that is used by all of them and stays open. With `n_jobs=1` nothing is sent anywhere.

    Raises:
        ImportError: joblib is not installed.
    """
    import_module("joblib").register_parallel_backend(name, _backend())


def _backend() -> type[Any]:
    library: Any = import_module("joblib.parallel")
    automatic, base = library.AutoBatchingMixin, library.ParallelBackendBase

    class WoolBackend(automatic, base):
        supports_retrieve_callback = True

        def __init__(self, executor: Executor | None = None, **options: Any) -> None:
            known = {"nesting_level", "inner_max_num_threads"} & options.keys()
            automatic.__init__(self, **{name: options.pop(name) for name in known})
            self._given = executor
            self._options = options

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            if n_jobs == 0:
                raise ValueError("n_jobs == 0 in Parallel has no meaning")
            if n_jobs is None:
                return 1
            most = library.cpu_count() if self._given is None else self._given._max_workers
            return n_jobs if n_jobs > 0 else max(most + 1 + n_jobs, 1)

        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            self.parallel = parallel
            jobs = self.effective_n_jobs(n_jobs)
            if jobs == 1 and self._given is None:
                alone = library.SequentialBackend(nesting_level=self.nesting_level)
                raise library.FallbackToBackend(alone)
            self._executor = self._given or Executor(jobs, **self._options)
            return jobs

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = self._executor.submit(func)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future: Any) -> Any:
            return future.result()

        def terminate(self) -> None:
            if self._given is None:
                self._executor.shutdown()
            self.reset_batch_stats()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            if self._given is None:
                self._executor._engine.abort()
                if ensure_ready:
                    self.configure(self.parallel.n_jobs, self.parallel)

    return WoolBackend
