package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"bloq-agent/ipc"
	"bloq-agent/store"
	"bloq-agent/store/trusted"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The rules of what people see: stdout carries what was asked for; everything
// else goes to stderr, lower case, without a full stop, one `error:` and at
// most one `hint:` with the command to type. Questions go to stderr too.

// A failure ends the command with an exit code of design: see package ipc.
type failure struct {
	code int
	text string // one line for each mistake; only those of a file are several
	hint string

	passphrase bool // unlock would go on with one
}

func (f *failure) Error() string { return f.text }

func fail(code int, hint, format string, args ...any) error {
	return &failure{code: code, text: text(format, args...), hint: hint}
}

// failAll is fail for an error that may be several, joined.
func failAll(code int, hint string, err error) error {
	mistakes := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		mistakes = joined.Unwrap()
	}
	lines := make([]string, len(mistakes))
	for i, m := range mistakes {
		lines[i] = text("%v", m)
	}
	return &failure{code: code, text: strings.Join(lines, "\n"), hint: hint}
}

// runner marks what a command itself returns as no mistake of usage; those
// come from the flag parser.
func runner(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		var known *failure
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &known):
			return failAll(ipc.ExitInternal, trusted.Mend(err), err)
		}
		before, _, found := strings.Cut(known.hint, store.HintFile)
		if found && cmd.Flags().Lookup("store") != nil { // the same login, not just any
			known.hint = before + retyped(os.Args[1:], "file")
		}
		return err
	}
}

// retyped is the command that the person typed, args, with another store.
// Secrets are never in an argument, so it may be shown.
func retyped(args []string, store string) string {
	command := "bloq-agent"
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--store":
			i++ // its value
		case strings.HasPrefix(args[i], "--store="):
		default:
			command += " " + ipc.ShellWord(args[i])
		}
	}
	return command + " --store " + store
}

// noArgs and oneArg are cobra's checks in our words.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return misused(cmd, "%s has no command %q", cmd.CommandPath(), args[0])
	}
	return misused(cmd, "%s takes no argument %q", cmd.CommandPath(), args[0])
}

func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return misused(cmd, "%s needs %s", cmd.CommandPath(), what)
		case 1:
			return nil
		}
		return misused(cmd, "%s takes one %s; %q is too much", cmd.CommandPath(), what, args[1])
	}
}

// misused is an error of usage; how cmd is used is in its help.
func misused(cmd *cobra.Command, format string, args ...any) error {
	return fail(ipc.ExitUsage, cmd.CommandPath()+" --help", format, args...)
}

// report prints err, which cmd has failed with. Its hint is no help if it is cmd
// itself.
func report(err error, root, cmd *cobra.Command) int {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{code: ipc.ExitUsage, text: firstLine(err.Error()), hint: root.Name() + " --help"}
	}
	for _, line := range strings.Split(f.text, "\n") {
		complain("error: %s", line)
	}
	if f.hint != "" && f.hint != cmd.CommandPath() {
		complain("hint: %s", f.hint)
	}
	return f.code
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

const loginWithoutTerminal = "bloq-agent login --user YOU@EXAMPLE --password-stdin"

// ask reads a line from the terminal.
func ask(what string) (string, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", fail(ipc.ExitUsage, loginWithoutTerminal, "no terminal to ask on")
	}
	question("%s: ", what)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// askSecret reads a line from the terminal without echo. Instead is what to
// type where there is none.
func askSecret(what, instead string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, fail(ipc.ExitUsage, instead, "no terminal to ask on")
	}
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	// A Ctrl-C at the question must not leave the terminal without echo.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	answered := make(chan struct{})
	defer close(answered)
	go func() { // ends with the answer, or the process
		select {
		case <-interrupted:
			_ = term.Restore(fd, before)
			question("\n")
			os.Exit(130)
		case <-answered:
		}
	}()
	question("%s: ", what)
	secret, err := term.ReadPassword(fd)
	question("\n")
	return secret, err
}

// maxSecret bounds what is read from stdin; a JWT with many claims is 10 KiB.
const maxSecret = 64 << 10

// readSecret takes a secret from stdin, without the newline that echo and
// editors end it with.
func readSecret(what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(os.Stdin, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fail(ipc.ExitUsage, "", "stdin holds no %s", what)
	case len(b) > maxSecret:
		return nil, fail(ipc.ExitUsage, "", "the %s on stdin is longer than 64 KiB", what)
	case bytes.ContainsAny(b, "\r\n\x00"):
		return nil, fail(ipc.ExitUsage, "", "the %s on stdin is more than one line", what)
	}
	return b, nil
}
