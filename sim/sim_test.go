//go:build linux

// Package sim runs random histories of the whole daemon. It is all tests.
//
// A history is a list of steps that happen to one simulated machine. Its person logs in,
// moves, locks and asks. Its disk fills, hangs and loses what was not synced when the
// power fails. Its keyring locks, freezes and dies; its network loses replies; its clocks
// are set, and it sleeps. The daemon is killed and started again. Daemon, profile,
// refresher, accounts, store and dialects are the program's own. They run in one bubble
// of virtual time against the sandbox. Beside them stands a model of what must be true.
// It is consulted after every answer, at every exchange, at the end of every daemon, and
// at each calm, when all faults have ended.
//
// A seed decides a history, and every delay in it. `make sim SEEDS=n` runs new seeds, and
// prints a history that breaks a promise in its shortest form. `make sim SIM_SEED=n`
// runs one seed again. The histories of bugs that there were are in testdata.
//
// Where to read: history_test.go and draw_test.go for what a history is, run_test.go for
// how one is run, steps_*_test.go for what each step does. world_test.go is the machine,
// of which disk_*, keyring, clock and endpoint_* are parts and an instance is one run of
// the daemon. model_test.go and trouble_test.go are what the model knows, check_*_test.go
// and calm_test.go are what it demands. parts_*_test.go test the machine's parts.
//
// What must be true:
//
//   - The daemon does not use a refresh token that it knows to be spent. It uses none while
//     the successor could not be saved, nor after its state directory was replaced.
//   - A login is never lost, except in the window that ARCHITECTURE.md states. With kept
//     client keys it is not lost there either.
//   - A token goes to its own profile and host. It has not expired, its login has not
//     ended, the agent is not locked, and numbers of tokens only rise.
//   - One exchange of a login is under way at a time, and attempts keep their distance.
//   - Every request is answered in time. One whose token is in memory waits for nothing.
//   - What a command has reported is true afterwards, and no secret is printed.
//   - No store holds a login that no record names.
//   - After the faults have ended each login comes back, or the model knows why not.
package sim

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSeeds runs seeds in a process for each processor: SIM_SEEDS new ones, or as many as
// SIM_FOR allows. With SIM_STOP it stops at the first that breaks a promise. SIM_FROM is
// the first seed. Without any of these it runs a few that are always the same, each twice.
func TestSeeds(t *testing.T) {
	seeds, limit := envNumber("SIM_SEEDS", 0), time.Duration(0)
	if text := os.Getenv("SIM_FOR"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		limit = d
	}
	from := rand.Uint64N(1 << 48)
	if seeds == 0 && limit == 0 {
		seeds, from = 60, 1
		t.Setenv("SIM_TWICE", "1")
	}
	c := &campaign{t: t, next: envNumber("SIM_FROM", from), seeds: seeds, began: time.Now(), limit: limit}
	first := c.next
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(c.work)
	}
	all.Wait()
	took := time.Since(c.began)
	t.Logf("%d histories from seed %d in %v, %.1f a second on %d processors: %d broke a promise",
		c.done, first, took.Round(time.Millisecond), float64(c.done)/took.Seconds(), runtime.NumCPU(), c.broken)
	if os.Getenv("SIM_TWICE") != "" {
		t.Logf("%d of them gave another trace the second time", c.other)
		// The race detector has the scheduler draw, and a busy machine takes a goroutine
		// off its processor at a moment of its own.
		if c.other*10 > c.done && !raceDetector {
			t.Error("a seed does not repeat")
		}
	}
}

// envNumber is the number in an environment variable, or otherwise.
func envNumber(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// TestReplay runs one seed, or the history in a file, and prints it: SIM_SEED=n or
// SIM_HISTORY=path.
func TestReplay(t *testing.T) {
	var h history
	switch path := os.Getenv("SIM_HISTORY"); {
	case path != "":
		h = read(t, path)
	case os.Getenv("SIM_SEED") != "":
		h = draw(envNumber("SIM_SEED", 0))
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

// TestNamedHistories runs the histories of bugs that there were.
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
