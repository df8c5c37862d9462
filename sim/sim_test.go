// Package sim has the whole daemon live through random histories. It is all tests.
//
// A history is a list of steps that happen to one simulated machine: its person logs
// in, moves, locks and asks; its disk fills, hangs and loses what was not synced when
// the power fails; its keyring locks, freezes and dies; its network loses replies; its
// clocks are set, and it sleeps; the daemon is killed and started again. All that is
// real of the program (daemon, profile, refresher, accounts, store, dialects) runs in
// one bubble of virtual time against the sandbox. Beside it stands a model of what must
// be true whatever happens, and it is asked after every answer, at every exchange, at
// the end of every daemon, and at each calm, when all faults have ended.
//
// A seed draws a history, and every delay in it. `make sim SEEDS=n` runs new ones, and
// prints a history that breaks a promise in its shortest form. `make sim SIM_SEED=n`
// runs one again. The histories of bugs that there were lie in testdata.
//
// What must be true:
//
//   - A refresh token that is known to be spent is not used again, and not while its
//     successor could not be saved, nor beside the state directory.
//   - A login is never lost, except in the window that ARCHITECTURE.md states. With kept
//     client keys it is not lost there either.
//   - A token goes to its own profile and host. It has not expired, its login has not
//     ended, the agent is not locked, and numbers of tokens only rise.
//   - One exchange of a login is under way at a time, and attempts keep their distance.
//   - Every request is answered in time. One whose token is in memory waits for nothing.
//   - What a command has said is true afterwards, and nobody is told a secret.
//   - No login lies in a store where no record says so.
//   - After the faults have ended each login comes back, or it is plain why not.
package sim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSeeds runs new seeds: a few, or SIM_SEEDS of them, or as many as SIM_FOR
// allows, in a process for each processor. With SIM_STOP it ends with the first that
// breaks a promise.
func TestSeeds(t *testing.T) {
	seeds, limit := number("SIM_SEEDS", 0), time.Duration(0)
	if text := os.Getenv("SIM_FOR"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		limit = d
	}
	if seeds == 0 && limit == 0 {
		seeds = 60
		t.Setenv("SIM_TWICE", "1")
	}
	c := &campaign{t: t, next: number("SIM_FROM", rand.Uint64N(1<<48)), seeds: seeds, began: time.Now(), limit: limit}
	first := c.next
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(c.work)
	}
	all.Wait()
	took := time.Since(c.began)
	t.Logf("%d histories from seed %d in %v, %.1f a second on %d processors: %d broke a promise",
		c.done, first, took.Round(time.Millisecond), float64(c.done)/took.Seconds(), runtime.NumCPU(), c.broken)
}

// number is an environment variable.
func number(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// A campaign hands out seeds to the processes that run them. Each runs one history
// at a time on one processor, for the disk, the cipher and the randomness are the
// process's, and a goroutine that the scheduler takes off its processor at a moment
// of its own would be a history that no seed repeats.
type campaign struct {
	t     *testing.T
	began time.Time
	limit time.Duration

	mu           sync.Mutex
	next         uint64
	seeds        uint64
	done, broken int
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
				fmt.Printf("broke: a seed is its trace (seed %d)\n%s\n", seed, firstDifference(r, again))
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

// shrink takes steps out of h as long as it stays broken.
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

// TestReplay runs one seed, or the history in a file, and prints it: SIM_SEED=n or
// SIM_HISTORY=path.
func TestReplay(t *testing.T) {
	var h history
	switch path := os.Getenv("SIM_HISTORY"); {
	case path != "":
		h = read(t, path)
	case os.Getenv("SIM_SEED") != "":
		h = draw(number("SIM_SEED", 0))
	default:
		t.Skip("neither SIM_SEED nor SIM_HISTORY is set")
	}
	if os.Getenv("GOMAXPROCS") != "1" { // see campaign
		again := exec.Command(os.Args[0], "-test.run=^TestReplay$", "-test.v")
		again.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
		out, err := again.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	r, again := run(t, h), run(t, h)
	t.Logf("%s\n%s\n%s", h, r, r.log)
	t.Logf("trace %016x, and again %016x", r.hash, again.hash)
	if r.hash != again.hash {
		t.Errorf("the second time something else happened:\n%s", firstDifference(r, again))
	}
	for _, v := range r.violations {
		t.Error(v)
	}
}

func firstDifference(a, b result) string {
	for n := range min(len(a.trace), len(b.trace)) {
		if a.trace[n] != b.trace[n] {
			before := result{trace: a.trace[max(0, n-26):n]}
			return before.String() + fmt.Sprintf("%v %s\n%v %s", a.trace[n].at, a.trace[n].text, b.trace[n].at, b.trace[n].text)
		}
	}
	return fmt.Sprintf("%d lines and %d", len(a.trace), len(b.trace))
}

func read(t *testing.T, path string) history {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		var h history
		if h, err = parse(string(text)); err == nil && h.world.verb == "" {
			err = errors.New("it is empty")
		}
		if err == nil {
			return h
		}
	}
	t.Fatalf("%s: %v", path, err)
	return history{}
}

// The histories of bugs that there were.
func TestNamedHistories(t *testing.T) {
	list, err := filepath.Glob("testdata/*.history")
	if err != nil || len(list) == 0 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, path := range list {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".history"), func(t *testing.T) {
			r := run(t, read(t, path))
			for _, v := range r.violations {
				t.Error(v)
			}
			if t.Failed() {
				t.Logf("%s\n%s", r, r.log)
			}
		})
	}
}

func TestAHistoryIsItsText(t *testing.T) {
	for seed := range uint64(200) {
		h := draw(seed)
		again, err := parse(h.String())
		if err != nil || again.String() != h.String() {
			t.Fatalf("%v\n%s\n%s", err, h, again)
		}
	}
}
