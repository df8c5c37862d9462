package daemon

import (
	"fmt"
	"io"
	"os"
	"time"

	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// NewLogger writes to f as format says: json, console, or auto, which is the
// journal where f is connected to it, console on a terminal, and json elsewhere.
func NewLogger(f *os.File, format string) (zerolog.Logger, error) {
	// Times of a second are enough for people and too coarse for tests.
	zerolog.TimeFieldFormat = time.RFC3339Nano
	switch format {
	case "auto", "":
		if j := systemd.OnStderr(); j != nil && f == os.Stderr { // f is stderr except in tests
			return zerolog.New(journalWriter{j}), nil
		}
		if !term.IsTerminal(int(f.Fd())) {
			return jsonLogger(f), nil
		}
	case "json":
		return jsonLogger(f), nil
	case "console":
	default:
		return zerolog.Nop(), fmt.Errorf("%q: auto, json or console", format)
	}
	colour := term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	return zerolog.New(zerolog.ConsoleWriter{
		Out: f, TimeFormat: time.TimeOnly, NoColor: !colour,
		// Strings in fields are quoted by the writer itself; messages and lists not.
		FormatPrepare:    visibleMessage,
		FormatFieldValue: func(v any) string { return ipc.Visible(fmt.Sprintf("%s", v)) },
	}).With().Timestamp().Logger(), nil
}

func jsonLogger(f *os.File) zerolog.Logger {
	return zerolog.New(visibleWriter{f}).With().Timestamp().Logger()
}

// A visibleWriter is for lines of JSON, which may be read on a terminal too.
type visibleWriter struct{ w io.Writer }

func (v visibleWriter) Write(p []byte) (int, error) {
	if _, err := v.w.Write(ipc.VisibleJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func visibleMessage(event map[string]any) error {
	if message, ok := event[zerolog.MessageFieldName].(string); ok {
		event[zerolog.MessageFieldName] = ipc.Visible(message)
	}
	return nil
}

// A journalWriter is a zerolog.LevelWriter. It ignores an entry that cannot be
// sent, because there is no other place to report it.
type journalWriter struct{ journal *systemd.Journal }

func (w journalWriter) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, p) }

func (w journalWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	_ = w.journal.Send(level.String(), p)
	return len(p), nil
}
