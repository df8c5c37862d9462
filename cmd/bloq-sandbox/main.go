// Bloq-sandbox is a local Bloq: the Accounts API and a status route of the
// Nodes API, for trying things out without an account.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"bloq-agent/cmd/internal/built"
	"bloq-agent/ipc"
)

const usage = `usage: bloq-sandbox COMMAND [flags]

  serve    run the sandbox in the foreground; prints its URLs as one JSON line
  demo     show the agent at work: sandbox, daemon and helper as real processes
  version  print the version

bloq-sandbox COMMAND --help lists a command's flags
`

// A usageError ends the program with 2; any other error with 1.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func main() {
	os.Exit(report(run(os.Args[1:])))
}

func run(args []string) error {
	if len(args) == 0 {
		return printUsage()
	}
	switch args[0] {
	case "serve":
		return serve(args[1:])
	case "demo":
		return demo(args[1:])
	case "version", "--version":
		_, err := fmt.Println("bloq-sandbox", built.Version())
		return err
	case "help", "-h", "--help":
		return printUsage()
	}
	return &usageError{fmt.Sprintf("unknown command %q", args[0]), "bloq-sandbox help"}
}

func printUsage() error {
	_, err := io.WriteString(os.Stdout, usage)
	return err
}

func report(err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	complain("error: " + err.Error())
	var u *usageError
	if !errors.As(err, &u) {
		return 1
	}
	if u.hint != "" {
		complain("hint: " + u.hint)
	}
	return 2
}

// complain writes a line to stderr. What came from outside does not move the
// cursor; neither does it in say.
func complain(line string) {
	_, _ = io.WriteString(os.Stderr, "bloq-sandbox: "+ipc.Visible(line)+"\n")
}
