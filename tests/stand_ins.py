"""A stand-in for CuPy, for what can be shown of the code around it without a GPU."""

import importlib.util
import types
from typing import ClassVar

import numpy


class FakeDevice:
    """As `cupy.cuda.Device`: equal by number, without a hash, and current within a `with` block."""

    current: ClassVar[list[int]] = [0]
    mem_info: ClassVar[tuple[int, int]] = (600, 1000)  # free, and all
    __hash__ = None

    def __init__(self, number=None):
        self.id = self.current[-1] if number is None else number

    def __eq__(self, other):
        return isinstance(other, FakeDevice) and self.id == other.id

    def __enter__(self):
        self.current.append(self.id)

    def __exit__(self, *_):
        self.current.pop()


class FakePool:
    """As CuPy's pool of memory, of the bytes that are given."""

    def __init__(self, *, total=300, used=200, limit=0):
        self.total, self.used, self.limit = total, used, limit
        self.freed = 0

    def total_bytes(self):
        return self.total

    def used_bytes(self):
        return self.used

    def free_bytes(self):
        return self.total - self.used

    def get_limit(self):
        return self.limit

    def free_all_blocks(self):
        self.freed += 1


class FakeCupy(types.ModuleType):
    """As much of CuPy as there is code in `backends` that knows CuPy.

    What streams and events are asked is written to ``log``.
    """

    float32 = numpy.float32
    ndarray = type("ndarray", (), {})  # array_api_compat looks for it

    def __init__(self, *, available=True, count=1, ones=numpy.ones, driver=13000, needs=13000):
        super().__init__("cupy")
        self.__spec__ = importlib.util.spec_from_loader("cupy", None)
        self.__version__ = "14.0.0"
        self.ones = ones
        self.log = log = []
        self.pool = FakePool()
        self.get_default_memory_pool = lambda: self.pool

        class Event:
            def __init__(self, *, disable_timing):
                self.name = None

            def record(self, stream):
                self.name = f"{stream.name}.{len(log)}"
                log.append(f"{stream.name} records {self.name}")

            def synchronize(self):
                log.append(f"the host waits for {self.name}")

        class Stream:
            def __init__(self, *, non_blocking=False):
                assert non_blocking, "a stream that waits for the default one"
                self.name = "upload"

            def record(self):
                event = Event(disable_timing=False)
                event.record(self)
                return event

            def wait_event(self, event):
                log.append(f"{self.name} waits for {event.name}")

            def synchronize(self):
                log.append(f"the host waits for {self.name}")

        class Memory(numpy.ndarray):
            def set(self, source, stream):
                assert source.base is not None, "memory that is not pinned"
                log.append(f"{stream.name} copies {source.tolist()}")
                self[...] = source

        computing = Stream(non_blocking=True)
        computing.name = "compute"
        self.empty = lambda shape, dtype: numpy.empty(shape, dtype).view(Memory)
        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: count,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: needs,
        )
        self.cuda = types.ModuleType("cupy.cuda")
        self.cuda.__dict__.update(
            is_available=lambda: available,
            runtime=runtime,
            Device=FakeDevice,
            Event=Event,
            Stream=Stream,
            get_current_stream=lambda: computing,
        )
        self.cupyx = types.ModuleType("cupyx")
        self.cupyx.empty_pinned = lambda shape, dtype: numpy.empty(shape, dtype).view()


class OutOfMemoryError(MemoryError):
    """As CuPy's, to which its module says that it belongs."""

    __module__ = "cupy.cuda.memory"

    def __init__(self):
        super().__init__("Out of memory allocating 512 bytes (allocated so far: 300 bytes).")


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""

    __module__ = "cupy_backends.cuda.api.runtime"

    def __init__(self, status, name):
        super().__init__(f"{name}: something is wrong")
        self.status = status
