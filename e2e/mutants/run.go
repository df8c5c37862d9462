package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A verdict is what a test said, having run or not.
type verdict struct {
	outcome outcome
	why     string // of a skip, or what kept it from running
}

type outcome int

const (
	didNotRun outcome = iota // it does not compile, or there is no such test
	failed
	passed
	skipped // it, or a part of it
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action, Test, Output, FailedBuild string
}

// run runs tests of one package, with the flags and the environment of the first.
func (t tree) run(ctx context.Context, tests ...test) (map[string]verdict, error) {
	verdicts := map[string]verdict{}
	var names []string
	for _, x := range tests {
		name, _, _ := strings.Cut(x.name, "/")
		names = append(names, name)
		verdicts[x.name] = verdict{didNotRun, "there is no such test"}
	}
	pattern := "^(" + strings.Join(names, "|") + ")$"
	if _, part, found := strings.Cut(tests[0].name, "/"); found && len(tests) == 1 {
		pattern += "/^" + regexp.QuoteMeta(part) + "$" // the others are only a wait
	}
	args := []string{"test", "-json", "-count=1", fmt.Sprintf("-timeout=%dm", 5*len(tests)), "-run=" + pattern, tests[0].pkg}
	cmd := t.command(ctx, "go", append(args, tests[0].args...)...)
	cmd.Env = append(cmd.Env, tests[0].env...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err = judge(stdout, verdicts)
	_, _ = io.Copy(io.Discard, stdout) // so that it can end
	_ = cmd.Wait()                     // the verdicts say it
	return verdicts, errors.Join(err, ctx.Err())
}

// judge reads the events of one run. A test that was begun and has no end was
// cut off, by a panic or its time: it has failed.
func judge(r io.Reader, verdicts map[string]verdict) error {
	last := "" // what was said just before a skip, or a failure to build, is the reason
	began := false
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("go test said %q", lines.Text())
		}
		if said := strings.TrimSpace(e.Output); !frame.MatchString(said) {
			last = said
		}
		began = began || e.Action == "run"
		for name, v := range verdicts {
			if e.Test == "" && e.Action == "fail" && !began {
				v = verdict{didNotRun, "its package fails before it runs: " + last}
			}
			verdicts[name] = v.after(e, name, last)
		}
	}
	return lines.Err()
}

// frame is what go test itself says around the words of tests and compilers.
var frame = regexp.MustCompile(`^($|#|---|===|(FAIL|PASS|ok|exit status)\b)`)

// after is the verdict on the test called name when e has come, too.
func (v verdict) after(e event, name, last string) verdict {
	switch {
	case e.FailedBuild != "":
		return verdict{didNotRun, "it does not compile: " + last}
	case e.Action == "skip" && (e.Test == name || strings.HasPrefix(e.Test, name+"/")):
		return verdict{skipped, last}
	case e.Test != name:
	case e.Action == "run", e.Action == "fail":
		return verdict{outcome: failed}
	case e.Action == "pass" && v.outcome != skipped:
		return verdict{outcome: passed}
	}
	return v
}

// A result is what became of a mutant; of several tests the worst one counts.
type result int

const (
	notShown result = iota
	caught
	notCaught
	isBroken
)

func (r result) String() string {
	return [...]string{"not shown", "caught", "NOT CAUGHT", "BROKEN"}[r]
}

// runAll runs the tests of each mutant, having seen that they pass without one.
func (t tree) runAll(ctx context.Context, out io.Writer, mutants []mutant) error {
	fails, err := t.withoutAny(ctx, out, mutants)
	if err != nil {
		return err
	}
	var count [isBroken + 1]int
	for _, m := range mutants {
		start := time.Now()
		r, said, err := t.try(ctx, m, fails)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		count[r]++
		_, _ = fmt.Fprintf(out, "%-10v  %s (%.1fs): %s\n", r, m.name, time.Since(start).Seconds(), said)
	}
	_, _ = fmt.Fprintf(out, "%d mutants: %d caught, %d not caught, %d not shown here, %d broken\n",
		len(mutants), count[caught], count[notCaught], count[notShown], count[isBroken])
	if n := count[notCaught] + count[isBroken]; n > 0 {
		return fmt.Errorf("%d of %d mutants show nothing", n, len(mutants))
	}
	return nil
}

// withoutAny gives the tests that fail already: they would catch anything.
func (t tree) withoutAny(ctx context.Context, out io.Writer, mutants []mutant) (map[string]bool, error) {
	start := time.Now()
	groups := map[string][]test{}
	for _, m := range mutants {
		for _, x := range m.tests {
			key := strings.Join(slices.Concat([]string{x.pkg}, x.args, x.env), " ")
			groups[key] = append(groups[key], x)
		}
	}
	fails, n := map[string]bool{}, 0
	for _, group := range groups {
		verdicts, err := t.run(ctx, group...)
		if err != nil {
			return nil, err
		}
		n += len(verdicts)
		for name, v := range verdicts {
			if v.outcome == failed {
				fails[group[0].pkg+" "+name] = true
			}
		}
	}
	_, _ = fmt.Fprintf(out, "%d tests were run without a mutant (%.1fs)\n", n, time.Since(start).Seconds())
	return fails, nil
}

// try runs the tests of one mutant and puts the tree back.
func (t tree) try(ctx context.Context, m mutant, fails map[string]bool) (r result, said string, err error) {
	if err := t.apply(ctx, m); err != nil {
		return isBroken, err.Error(), nil
	}
	defer func() { err = errors.Join(err, t.revert(ctx, m)) }()
	var texts []string
	for _, x := range m.tests {
		verdicts, err := t.run(ctx, x)
		if err != nil {
			return 0, "", err
		}
		one, text := judged(verdicts[x.name], fails[x.String()])
		r = max(r, one)
		texts = append(texts, x.String()+text)
	}
	return r, strings.Join(texts, "; "), nil
}

func judged(v verdict, failsAnyway bool) (result, string) {
	switch {
	case failsAnyway:
		return isBroken, " fails without it, too"
	case v.outcome == didNotRun:
		return isBroken, " did not run: " + v.why
	case v.outcome == skipped:
		return notShown, " is not shown here: " + v.why
	case v.outcome == passed:
		return notCaught, " passes"
	}
	return caught, ""
}
