// Mutants breaks promises on purpose, to see that a test notices.
//
// Each *.patch here is one promise of SECURITY.md (or of an issue) with the code
// that keeps it taken out. Its head says which, and who must notice:
//
//	promise: one sentence
//	tests: ./accounts TestAProxyThatDoesNotParse
//	tests: ./e2e/systemd TestTheUnit BLOQ_E2E=1
//
// After the name of the test come variables for its environment, and flags for
// go test. Every test that is named must fail, by running: a mutant that does
// not compile shows nothing, and neither does a test that skips itself.
//
// The work is done in a copy of the files that git knows of; the tree itself is
// never touched.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	from := flag.String("tree", ".", "the `directory` of the module")
	only := flag.String("only", "", "the mutants whose names match this `pattern`")
	apply := flag.Bool("apply", false, "see that each applies and compiles, and run no test")
	flag.Parse()
	dir, err := os.MkdirTemp("", "bloq-mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t := tree{dir: filepath.Join(dir, "tree")}
	if err := t.copyFrom(ctx, *from); err != nil {
		return err
	}
	mutants, err := readMutants(filepath.Join(t.dir, "e2e", "mutants"), *only)
	if err != nil {
		return err
	}
	if *apply {
		return t.applyAll(ctx, os.Stdout, mutants)
	}
	return t.runAll(ctx, os.Stdout, mutants)
}
