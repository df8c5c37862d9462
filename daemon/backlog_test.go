package daemon

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// While nothing reads stderr, logging does not block. A later reader gets the lines in
// order, and a count in place of those that are missing.
func TestTheLogWaitsForNoReader(t *testing.T) {
	const lines = 5000
	r, w, err := os.Pipe()
	do(t, err)
	defer time.AfterFunc(20*time.Second, func() { _ = r.Close() }).Stop() // ends what would hang
	log, drain, err := NewLogger(w, "json")
	do(t, err)
	padding := strings.Repeat("x", 100)
	for i := range lines {
		log.Info().Int("i", i).Msg(padding)
	}
	drain() // is over though nobody has read
	next, missing := 0, 0
	for in := bufio.NewScanner(r); in.Scan(); {
		var line struct{ I, Lines *int }
		do(t, json.Unmarshal(in.Bytes(), &line))
		switch {
		case line.Lines != nil:
			missing += *line.Lines
			next += *line.Lines
			log.Info().Int("i", lines).Msg("the last")
		case line.I == nil || *line.I != next:
			t.Fatalf("not line %d: %s", next, in.Bytes())
		default:
			next++
		}
		if next > lines {
			break
		}
	}
	if next != lines+1 {
		t.Errorf("%d lines, with those that are missing", next)
	}
	t.Logf("%d of %d lines are missing", missing, lines)
	if missing == 0 || missing > lines-maxBacklog/200 {
		t.Errorf("%d of %d lines are missing", missing, lines)
	}
}

// A writer of the log that fails for a while, as a journal does that is started
// again, gets what comes after, and the number of what it has lost.
func TestALogThatFailsForAWhile(t *testing.T) {
	out := &failing{fails: 3}
	b := newBacklog(out)
	log := zerolog.New(b)
	for _, m := range []string{"one", "two", "three", "four"} {
		log.Info().Msg(m)
		b.drain()
	}
	// The report before "three" failed too.
	if len(out.got) != 2 || !strings.Contains(out.got[0], `"lines":3`) || !strings.Contains(out.got[1], "four") {
		t.Errorf("%q", out.got)
	}
}

type failing struct {
	fails int
	got   []string
}

func (f *failing) Write(p []byte) (int, error) { return f.WriteLevel(zerolog.NoLevel, p) }

func (f *failing) WriteLevel(_ zerolog.Level, p []byte) (int, error) {
	if f.fails--; f.fails >= 0 {
		return 0, os.ErrClosed
	}
	f.got = append(f.got, string(p))
	return len(p), nil
}
