//go:build linux

package sim

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// A kind of step, and how often it is drawn.
type kind struct {
	verb   string
	weight int
	draw   func(*rand.Rand, *step)
}

var profiles = []string{"one", "two", "three"}

// kinds are what a history is made of. Each seed leaves whole kinds out: a step that
// mends what another has broken would hide it otherwise.
var kinds = []kind{
	{"login", 8, func(r *rand.Rand, s *step) {
		s.args["store"] = pick(r, "file", "file", "keyring", "memory")
		maybe(r, s, 3, "keep", "1")
		maybe(r, s, 3, "how", "token")
	}},
	{"logout", 2, nil},
	{"move", 3, func(r *rand.Rand, s *step) { s.args["to"] = pick(r, "file", "keyring") }},
	{"lock", 2, func(r *rand.Rand, s *step) { maybe(r, s, 5, "force", "1") }},
	{"unlock", 4, nil},
	{"refresh", 4, func(r *rand.Rand, s *step) { maybe(r, s, 4, "cancel", pick(r, "1ms", "20ms")) }},
	{"ask", 16, func(r *rand.Rand, s *step) {
		maybe(r, s, 4, "n", pick(r, "3", "20"))
		maybe(r, s, 3, "wait", pick(r, "1ms", "300ms", "2s"))
		maybe(r, s, 4, "ttl", pick(r, "1m", "25m", "1h"))
		maybe(r, s, 8, "cancel", pick(r, "1ms", "50ms"))
	}},
	{"git", 3, nil},
	{"rejected", 2, nil},
	{"status", 2, nil},
	{"reload", 1, func(r *rand.Rand, s *step) { maybe(r, s, 2, "signal", "1") }},
	{"hint", 2, nil},
	{"start", 8, nil},
	{"kill", 4, nil},
	{"stop", 2, nil},
	{"power", 2, nil},
	{"second", 1, nil},
	{"pass", 16, func(r *rand.Rand, s *step) {
		s.args["for"] = pick(r, "3ms", "30ms", "200ms", "1s", "6s", "40s", "5m", "31m", "31m", "1h5m", "9h")
	}},
	{"suspend", 1, func(r *rand.Rand, s *step) { s.args["for"] = pick(r, "10s", "20m", "2h", "30h") }},
	{"clock", 1, func(r *rand.Rand, s *step) { s.args["wrong"] = pick(r, "0s", "-2h", "3h", "40s", "-26280h") }},
	{"disk", 5, func(r *rand.Rand, s *step) {
		s.args["is"] = pick(r, "ok", "ok", "full", "readonly", "failing", "hung", "slow")
		if s.args["is"] == "hung" || s.args["is"] == "slow" {
			s.args["for"] = pick(r, "1500ms", "30s")
		}
	}},
	{"keyring", 5, func(r *rand.Rand, s *step) {
		s.args["is"] = pick(r, "ok", "ok", "ok", "locked", "frozen", "dead", "nobus", "unheard", "diesold", "diesnew")
	}},
	{"net", 5, func(r *rand.Rand, s *step) {
		s.args["is"] = pick(r, "up", "up", "down", "slow", "loses", "drops", "spoils")
		if s.args["is"] == "slow" {
			s.args["by"] = pick(r, "300ms", "6s", "25s")
		}
	}},
	{"fault", 4, func(r *rand.Rand, s *step) {
		s.args["kind"] = pick(r, "500", "503", "429", "401", "403", "404", "302", "page", "empty", "half", "hang", "reset", "invalid")
		maybe(r, s, 3, "n", pick(r, "2", "7"))
	}},
	{"revoke", 1, nil},
	{"replace", 1, nil},
	{"backup", 1, nil},
	{"restore", 1, func(r *rand.Rand, s *step) { maybe(r, s, 2, "inplace", "1") }},
	{"copy", 1, nil},
	{"putback", 1, nil},
	{"version", 1, func(r *rand.Rand, s *step) { s.args["is"] = pick(r, "1", "3") }},
	{"calm", 2, nil},
}

// forAll are the kinds that name no profile.
var forAll = []string{
	"lock", "unlock", "status", "reload", "hint", "start", "kill", "stop", "power", "second", "pass", "suspend", "clock",
	"disk", "keyring", "net", "fault", "replace", "backup", "restore", "version", "calm",
}

// always are the kinds that no seed leaves out: without them nothing happens.
var always = []string{"login", "ask", "start", "pass", "unlock"}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// maybe sets key, one time in n.
func maybe(r *rand.Rand, s *step, n int, key, value string) {
	if r.IntN(n) == 0 {
		s.args[key] = value
	}
}

// draw makes the history of a seed.
func draw(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 1))
	world := step{verb: "world", args: map[string]string{
		"seed": strconv.FormatUint(seed, 10), "rotate": pick(r, "none", "grace", "strict", "strict"),
	}}
	maybe(r, &world, 4, "ttl", pick(r, "2m", "20m"))
	maybe(r, &world, 10, "full", "1")
	maybe(r, &world, 10, "refresh", "30h")
	h := history{world: world}
	some, sum := swarm(r)
	people := profiles[:1+r.IntN(len(profiles))]
	h.steps = append(h.steps, step{verb: "start", args: map[string]string{}})
	// Many short ones and few long ones find more than the same length each time.
	length := 30 + int(270*r.Float64()*r.Float64()*r.Float64())
	for len(h.steps) < length {
		s := drawStep(r, some, sum, people)
		if s.verb == "pass" && world.arg("ttl") != "" && s.span("for", 0) > time.Hour {
			s.args["for"] = "31m" // short tokens make a long time dear, and no more interesting
		}
		h.steps = append(h.steps, s)
		if s.verb == "move" && r.IntN(4) == 0 { // what was known before must be known after
			h.steps = append(h.steps, unwritable(r, s.profile)...)
		}
		if ends := s.verb == "kill" || s.verb == "stop" || s.verb == "power"; ends && r.IntN(8) > 0 {
			h.steps = append(h.steps, step{verb: "start", args: map[string]string{}})
		}
		if s.verb == "ask" && !h.logsIn(s.profile) && r.IntN(3) > 0 {
			h.steps = append(h.steps, step{verb: "login", profile: s.profile, args: map[string]string{"store": pick(r, "file", "keyring")}})
		}
	}
	return h
}

// logsIn reports whether a step of h logs the profile in.
func (h history) logsIn(profile string) bool {
	return slices.ContainsFunc(h.steps, func(s step) bool { return s.verb == "login" && s.profile == profile })
}

// unwritable is a disk that cannot be written, and then a refresh.
func unwritable(r *rand.Rand, profile string) []step {
	refresh := step{verb: "refresh", profile: profile, args: map[string]string{}}
	if r.IntN(2) == 0 {
		refresh = step{verb: "pass", args: map[string]string{"for": "31m"}}
	}
	return []step{
		{verb: "disk", args: map[string]string{"is": pick(r, "readonly", "full")}},
		{verb: "pass", args: map[string]string{"for": "6s"}},
		refresh,
		{verb: "disk", args: map[string]string{"is": "ok"}},
	}
}

// swarm leaves kinds out.
func swarm(r *rand.Rand) (some []kind, sum int) {
	share := 0.3 + 0.6*r.Float64()
	for _, k := range kinds {
		if slices.Contains(always, k.verb) || r.Float64() < share {
			some = append(some, k)
			sum += k.weight
		}
	}
	return some, sum
}

func drawStep(r *rand.Rand, some []kind, sum int, people []string) step {
	at := r.IntN(sum)
	var k kind
	for _, k = range some {
		if at -= k.weight; at < 0 {
			break
		}
	}
	s := step{verb: k.verb, args: map[string]string{}}
	if !slices.Contains(forAll, k.verb) {
		s.profile = people[r.IntN(len(people))]
	}
	if k.draw != nil {
		k.draw(r, &s)
	}
	s.beside = r.IntN(4) == 0 && k.verb != "calm" && k.verb != "start" && k.verb != "pass"
	return s
}
