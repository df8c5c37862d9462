//go:build linux

package sim

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A campaign hands out seeds to the processes that run them. Each process runs one
// history at a time, because the disk, the cipher and the randomness are global. It runs
// on one processor and without preemption: the moment at which the scheduler would take a
// goroutine off its processor is one that no seed repeats.
type campaign struct {
	t     *testing.T
	began time.Time
	limit time.Duration

	mu           sync.Mutex
	next         uint64
	seeds        uint64
	done, broken int
	other        int // that gave another trace the second time
}

// batch is how many seeds a process runs before another takes its place.
const batch = 250

func (c *campaign) take() (first, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken > 0 && os.Getenv("SIM_STOP") != "":
		return 0, 0
	case c.limit > 0 && time.Since(c.began) > c.limit:
		return 0, 0
	case c.limit > 0:
		n = 20
	default:
		n = min(batch, max(1, c.seeds/uint64(runtime.NumCPU())), c.seeds)
		c.seeds -= n
	}
	first = c.next
	c.next += n
	return first, n
}

func (c *campaign) work() {
	for {
		first, n := c.take()
		if n == 0 {
			return
		}
		for last := first + n; first < last; {
			first = c.batch(first, last)
		}
	}
}

// batch has a process run the seeds from first on, and returns the one after the
// last that it has begun.
func (c *campaign) batch(first, last uint64) (next uint64) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=2h")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GOGC=400", fmt.Sprintf("SIM_WORKER=%d-%d", first, last))
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Error(err)
		return last
	}
	var noise bytes.Buffer
	cmd.Stderr = &noise
	if err := cmd.Start(); err != nil {
		c.t.Error(err)
		return last
	}
	stuck := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stuck.Stop()
	var report strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		if seed, is := strings.CutPrefix(line, "seed "); is {
			stuck.Reset(2 * time.Minute)
			n, _ := strconv.ParseUint(seed, 10, 64)
			next = n + 1
			c.count(1, 0)
			continue
		}
		if strings.HasPrefix(line, "other trace ") {
			c.mu.Lock()
			c.other++
			c.mu.Unlock()
		}
		report.WriteString(line + "\n")
	}
	err = cmd.Wait()
	if text := report.String(); strings.Contains(text, "broke:") {
		c.count(0, strings.Count(text, "broke:"))
		c.t.Errorf("%s", text)
		return last
	}
	if err != nil {
		c.count(0, 1)
		c.t.Errorf("seed %d ended its process: %v\n%s%.8000s", next-1, err, report.String(), noise.String())
		return max(next, first+1)
	}
	return last
}

func (c *campaign) count(done, broken int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += done
	c.broken += broken
}

// TestWorker is a process of a campaign.
func TestWorker(t *testing.T) {
	var first, last uint64
	if _, err := fmt.Sscanf(os.Getenv("SIM_WORKER"), "%d-%d", &first, &last); err != nil {
		t.Skip("it is a part of TestSeeds")
	}
	for seed := first; seed < last; seed++ {
		fmt.Println("seed", seed)
		h := draw(seed)
		r := run(t, h)
		if os.Getenv("SIM_TWICE") != "" {
			if again := run(t, h); again.hash != r.hash {
				fmt.Printf("other trace of seed %d:\n%s\n", seed, firstDifference(r, again))
			}
		}
		if r.broken() == "" {
			continue
		}
		if os.Getenv("SIM_STOP") != "" {
			fmt.Printf("broke: %s (seed %d)\n%s", r.violations[0], seed, r)
			return
		}
		short := shrink(h, func(h history) bool { return run(t, h).broken() == r.broken() })
		fmt.Printf("broke: %s (seed %d)\nIts shortest history:\n%s\nand what happened:\n%s\n", r.violations[0], seed, short, run(t, short))
	}
}

// shrink leaves out steps of h as long as it stays broken.
func shrink(h history, broken func(history) bool) history {
	tries := 0
	for size := len(h.steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(h.steps) && tries < 400; tries++ {
			less := history{h.world, slices.Delete(slices.Clone(h.steps), at, at+size)}
			if broken(less) {
				h = less
			} else {
				at += size
			}
		}
	}
	return h
}

// firstDifference is where two runs of one history part, after what led there.
func firstDifference(a, b result) string {
	for n := range min(len(a.trace), len(b.trace)) {
		if a.trace[n] != b.trace[n] {
			before := result{trace: a.trace[max(0, n-26):n]}
			return before.String() + fmt.Sprintf("%v %s\n%v %s", a.trace[n].at, a.trace[n].text, b.trace[n].at, b.trace[n].text)
		}
	}
	return fmt.Sprintf("%d lines and %d", len(a.trace), len(b.trace))
}
