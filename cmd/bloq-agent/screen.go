package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

// The only file that writes to a terminal (serve's log is the other thing that
// does; see daemon.NewLogger). The daemon, the endpoint, files, the environment
// and other programs choose much of what is shown, and none of it may move the
// cursor or begin a line of its own. So every argument of every format is
// escaped, and a format is a constant of ours.

// text is fmt.Sprintf with arguments that stay on their line.
func text(format string, args ...any) string {
	if false {
		_ = fmt.Sprintf(format, args...) // so that vet checks the calls
	}
	shown := make([]any, len(args))
	for i, a := range args {
		shown[i] = visible{a}
	}
	return fmt.Sprintf(format, shown...)
}

// visible is a value whose text is escaped, whatever the verb.
type visible struct{ value any }

func (v visible) Format(f fmt.State, verb rune) {
	_, _ = io.WriteString(f, ipc.Visible(fmt.Sprintf(fmt.FormatString(f, verb), v.value)))
}

// complain writes to stderr; if that fails the exit code still tells.
func complain(format string, args ...any) {
	_, _ = io.WriteString(os.Stderr, "bloq-agent: "+text(format, args...)+"\n")
}

// question writes to stderr without an end of the line.
func question(format string, args ...any) {
	_, _ = io.WriteString(os.Stderr, text(format, args...))
}

// printf writes to stdout; a full disk or a closed pipe is an error.
func printf(format string, args ...any) error {
	_, err := io.WriteString(os.Stdout, text(format, args...))
	return err
}

// printJSON writes v for programs. Its escapes are JSON's.
func printJSON(v any, indent string) error {
	b, err := json.Marshal(v)
	if err == nil && indent != "" {
		b, err = json.MarshalIndent(v, "", indent)
	}
	if err == nil {
		_, err = os.Stdout.Write(append(ipc.VisibleJSON(b), '\n'))
	}
	return err
}

// printTable writes rows in columns.
func printTable(rows ...[]string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = text("%s", cell)
		}
		_, _ = io.WriteString(w, strings.Join(cells, "\t")+"\n")
	}
	return w.Flush() // it reports what the lines before met
}

// capture has what cobra writes by itself, helps and completions, written here.
func capture(root *cobra.Command) {
	root.SetOut(lineWriter{os.Stdout})
	root.SetErr(lineWriter{os.Stderr})
}

// A lineWriter leaves lines and columns as they are.
type lineWriter struct{ f *os.File }

func (w lineWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.f, ipc.VisibleLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
