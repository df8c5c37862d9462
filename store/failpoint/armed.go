//go:build failpoints

// Package failpoint kills the process at a named step.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	mu   sync.Mutex
	hits int // of the step that is waited for first
)

// Hit kills the process if $BLOQ_FAILPOINT is NAME:N and this is the Nth hit of
// NAME, or STEP:N>NAME and this is the first of NAME after the Nth of STEP.
// Nothing is flushed and nothing deferred runs, as in a real crash.
func Hit(name string) {
	first, last, then := strings.Cut(os.Getenv("BLOQ_FAILPOINT"), ">")
	step, count, _ := strings.Cut(first, ":")
	n, err := strconv.Atoi(count)
	if err != nil {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if name == step {
		hits++
	}
	if hits == n && (!then && name == step || then && name == last) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	}
}
