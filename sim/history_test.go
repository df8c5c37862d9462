//go:build linux

package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A history is what happens to one machine, as a text that a person can read, keep
// and change: a line for each step, "verb profile key=value … &". The first is the
// world's. Every step can follow every other (to kill what does not run does
// nothing), so that a history can be cut anywhere to find its shortest form.
type history struct {
	world step
	steps []step
}

type step struct {
	verb    string
	profile string // "" where it means none
	args    map[string]string
	// beside says that the next step does not wait for the end of this one.
	beside bool
}

func (s step) String() string {
	words := []string{s.verb}
	if s.profile != "" {
		words = append(words, s.profile)
	}
	keys := make([]string, 0, len(s.args))
	for k := range s.args {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		words = append(words, k+"="+s.args[k])
	}
	if s.beside {
		words = append(words, "&")
	}
	return strings.Join(words, " ")
}

func (h history) String() string {
	lines := []string{h.world.String()}
	for _, s := range h.steps {
		lines = append(lines, s.String())
	}
	return strings.Join(lines, "\n") + "\n"
}

// parse reads what String wrote. A line that begins with # is a comment.
func parse(text string) (history, error) {
	var h history
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		s := step{verb: words[0], args: map[string]string{}}
		for _, w := range words[1:] {
			key, value, pair := strings.Cut(w, "=")
			switch {
			case w == "&":
				s.beside = true
			case pair:
				s.args[key] = value
			default:
				s.profile = w
			}
		}
		switch {
		case h.world.verb == "" && s.verb == "world":
			h.world = s
		case h.world.verb == "":
			return h, fmt.Errorf("%q: the first line is the world's", line)
		case verbs[s.verb] == nil:
			return h, fmt.Errorf("%q: no such step", s.verb)
		default:
			h.steps = append(h.steps, s)
		}
	}
	return h, nil
}

// seed decides every delay in h.
func (h history) seed() uint64 {
	n, err := strconv.ParseUint(h.world.arg("seed"), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", h.world, err))
	}
	return n
}

// arg is the value of key, or "".
func (s step) arg(key string) string { return s.args[key] }

// has reports whether key is set to anything.
func (s step) has(key string) bool { return s.args[key] != "" }

// span is the duration that key names, or otherwise.
func (s step) span(key string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(cmp.Or(s.args[key], otherwise.String()))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", s, err))
	}
	return d
}
