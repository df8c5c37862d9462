//go:build linux

package sim

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"bloq-agent/refresher"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// A result is what came of one history.
type result struct {
	hash       uint64
	violations []string
	trace      []line
	log        string // of the last daemon
}

// broken is the promise that was broken first, or "".
func (r result) broken() string {
	if len(r.violations) == 0 {
		return ""
	}
	what, _, _ := strings.Cut(r.violations[0], ":")
	return what
}

func (r result) String() string {
	var b strings.Builder
	for _, l := range r.trace {
		fmt.Fprintf(&b, "%12v  %s\n", l.at.Round(time.Microsecond), l.text)
	}
	return b.String()
}

// signingKey is the endpoint's, for all histories: it takes a while to make.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// run has h happen, in a bubble of its own.
func run(t *testing.T, h history) (r result) {
	installDisk()
	seed := h.seed()
	signingKey() // from randomness of its own
	cryptotest.SetGlobalRandom(t, seed)
	drawBefore := refresher.ReplaceDraw(func() float64 { // by the time, as every draw: see world.pause
		return fraction(seed, "draw", time.Now().UnixNano())
	})
	defer func() { refresher.ReplaceDraw(drawBefore) }()
	if h.world.arg("full") == "" {
		before := store.ReplaceCipher(cheap{})
		defer store.ReplaceCipher(before)
	}
	level := zerolog.GlobalLevel()
	defer zerolog.SetGlobalLevel(level)
	synctest.Test(t, func(*testing.T) {
		w := newWorld(h)
		for _, s := range h.steps {
			w.do(s)
			if len(w.violations) > 0 {
				break // what follows from it tells nothing
			}
		}
		w.finish()
		r = w.result()
	})
	return r
}

// do has one step happen.
func (w *world) do(s step) {
	w.note("> %s", s)
	if s.verb == "calm" {
		w.model.Lock()
		w.endFaults()
		w.model.Unlock()
		w.steps.Wait()
	}
	done := make(chan struct{})
	w.steps.Go(func() {
		defer close(done)
		w.model.Lock()
		defer w.model.Unlock()
		verbs[s.verb](w, s)
	})
	if s.beside {
		w.pause("beside", s.verb, 40*time.Millisecond)
		return
	}
	select {
	case <-done:
	case <-time.After(100 * 24 * time.Hour):
		w.violated("every command ends", "%s", s)
	}
	synctest.Wait()
}

// finish ends every fault and every daemon, so that the bubble can end.
func (w *world) finish() {
	w.model.Lock()
	w.endFaults()
	w.model.Unlock()
	w.steps.Wait()
	if len(w.violations) == 0 {
		w.do(step{verb: "calm"})
		w.do(step{verb: "stop"})
	}
	w.model.Lock()
	w.endFaults()
	for _, i := range w.instances {
		if !i.dead() {
			i.kill()
		}
	}
	w.model.Unlock()
	for _, i := range w.instances {
		<-i.ended
		i.active.Wait()
		disks.forget(w.volume)
	}
	w.api.end()
	time.Sleep(time.Hour) // what waits for a time-out ends too
}

var instancePath = regexp.MustCompile(`/sim/\d+`)

func (w *world) result() result {
	r := result{violations: w.violations, trace: w.trace}
	for n := range r.trace {
		r.trace[n].text = instancePath.ReplaceAllString(r.trace[n].text, "")
	}
	slices.SortStableFunc(r.trace, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.text, b.text)) })
	h := fnv.New64a()
	for _, l := range r.trace {
		_, _ = fmt.Fprintln(h, l.at, l.text)
	}
	r.hash = h.Sum64()
	if n := len(w.instances); n > 0 {
		r.log = w.instances[n-1].log.String()
	}
	return r
}
