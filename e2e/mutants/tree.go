package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A tree is the copy that is broken.
type tree struct{ dir string }

// copyFrom takes what git knows of, as it lies there: not yet committed counts.
func (t tree) copyFrom(ctx context.Context, from string) error {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = from
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("git ls-files in %s: %w", from, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(t.dir, name), filepath.Join(from, name)); err != nil {
			return err
		}
	}
	// An index, for the tests that ask git what is tracked.
	for _, args := range [][]string{{"init", "-q"}, {"add", "--all", "--force"}} {
		if out, err := t.command(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s in the copy: %s", args[0], firstLine(out))
		}
	}
	return nil
}

func copyFile(to, from string) error {
	fi, err := os.Stat(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil // deleted, and not yet committed
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, fi.Mode().Perm())
}

// command runs in the tree. Without the paths of the tree in them, what is
// built is found again in go's cache the next time.
func (t tree) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-trimpath", "GIT_CEILING_DIRECTORIES="+filepath.Dir(t.dir))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second // for what the tests have started
	return cmd
}

func (t tree) apply(ctx context.Context, m mutant, flags ...string) error {
	if out, err := t.command(ctx, "git", append(append([]string{"apply"}, flags...), m.file)...).CombinedOutput(); err != nil {
		return fmt.Errorf("it does not apply: %s", firstLine(out))
	}
	return nil
}

func (t tree) revert(ctx context.Context, m mutant) error { return t.apply(ctx, m, "-R") }

// named reports an error for a test that is not in its package.
func (t tree) named(m mutant) error {
	for _, x := range m.tests {
		name, _, _ := strings.Cut(x.name, "/")
		files, _ := filepath.Glob(filepath.Join(t.dir, x.pkg, "*_test.go")) // the pattern is good
		if !slices.ContainsFunc(files, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && regexp.MustCompile(`(?m)^func `+name+`\(`).Match(b)
		}) {
			return fmt.Errorf("there is no %s", x)
		}
	}
	return nil
}

// applyAll sees that each mutant applies, compiles, and names tests that exist.
// They are compiled many at a time: what compiles beside others does so alone,
// for all practical purposes, and where it does not it is tried alone.
func (t tree) applyAll(ctx context.Context, out io.Writer, mutants []mutant) error {
	var good []mutant
	for _, m := range mutants {
		err := t.named(m)
		if err == nil {
			err = t.apply(ctx, m, "--check")
		}
		if err != nil {
			_, _ = fmt.Fprintf(out, "%s: %v\n", m.name, err)
			continue
		}
		good = append(good, m)
	}
	compile := 0
	for rest := good; len(rest) > 0 && ctx.Err() == nil; {
		batch := t.applyMost(ctx, &rest)
		broken, err := t.compile(ctx, batch)
		if err != nil {
			return err
		}
		for _, b := range broken {
			_, _ = fmt.Fprintf(out, "%s: it does not compile: %s\n", b.name, b.why)
		}
		compile += len(batch) - len(broken)
	}
	_, _ = fmt.Fprintf(out, "%d mutants, %d of them apply and compile\n", len(mutants), compile)
	if compile < len(mutants) {
		return fmt.Errorf("%d are broken", len(mutants)-compile)
	}
	return ctx.Err()
}

// applyMost applies what it can of list at the same time, and leaves the rest in
// it. The first one always applies.
func (t tree) applyMost(ctx context.Context, list *[]mutant) (applied []mutant) {
	var rest []mutant
	for _, m := range *list {
		if t.apply(ctx, m) == nil {
			applied = append(applied, m)
		} else {
			rest = append(rest, m)
		}
	}
	*list = rest
	return applied
}

type broken struct{ name, why string }

// compile finds those of a batch, which has been applied, that do not compile,
// and reverts the batch.
func (t tree) compile(ctx context.Context, batch []mutant) ([]broken, error) {
	said, err := t.command(ctx, "go", "vet", "./...").CombinedOutput()
	for _, m := range slices.Backward(batch) {
		if err := t.revert(ctx, m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return nil, ctx.Err()
	case len(batch) == 1:
		return []broken{{batch[0].name, firstLine(said)}}, nil
	}
	var all []broken
	for _, half := range [][]mutant{batch[:len(batch)/2], batch[len(batch)/2:]} {
		for rest := half; len(rest) > 0; {
			found, err := t.compile(ctx, t.applyMost(ctx, &rest))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// firstLine is the first that is no heading of go's.
func firstLine(out []byte) string {
	for line := range bytes.Lines(out) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return string(line)
		}
	}
	return "without a word"
}
