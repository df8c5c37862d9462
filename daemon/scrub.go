package daemon

import (
	"runtime"
	"runtime/debug"
	"slices"
)

// maxSmall is the largest object that shares a span with others (32 KiB; the
// runtime's own constant). A larger one leaves whole pages when it is freed.
const maxSmall = 32 << 10

// maxFill is how many bytes are filled between two collections.
const maxFill = 16 << 20

// scrub overwrites what is garbage by now: the copies of secrets that passed
// through the HTTP, JSON and encryption code, and that nobody could clear.
//
// Pages that are free are given back to the kernel, which clears them. That
// leaves the holes between objects that live: they are filled with fresh
// objects, which the runtime clears as it hands them out. It takes several
// rounds, because a pool's buffers are garbage at the third look, and those of a
// connection only once its goroutine has ended. And it takes a single processor,
// because each has free pages of its own that no other gets at.
func scrub() {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	// A collection beside fillHoles would have it pass over spans with holes.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 4 {
		debug.FreeOSMemory() // a collection first
		fillHoles()
	}
	debug.FreeOSMemory()
}

func fillHoles() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	holes := int(m.HeapInuse - m.HeapAlloc) // bytes; as many at most in any class of size
	filled := 0
	for size := 1; size <= maxSmall; size++ {
		size = cap(slices.Grow([]byte(nil), size)) // the class that it falls into
		fill := make([][]byte, 0, holes/size+1)
		for range cap(fill) {
			fill = append(fill, make([]byte, size))
		}
		runtime.KeepAlive(fill)
		if filled += holes; filled > maxFill {
			filled = 0
			runtime.GC()
		}
	}
}
