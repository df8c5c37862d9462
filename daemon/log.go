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
// The log waits for no reader; drain waits a moment for the last lines to be read.
func NewLogger(f *os.File, format string) (log zerolog.Logger, drain func(), err error) {
	out, err := logWriter(f, format)
	if err != nil {
		return zerolog.Nop(), nil, err
	}
	b := newBacklog(out)
	log = zerolog.New(b)
	if _, journal := out.(journalWriter); !journal { // it has times of its own
		log = log.With().Timestamp().Logger()
	}
	return log, b.drain, nil
}

func logWriter(f *os.File, format string) (zerolog.LevelWriter, error) {
	// Times of a second are enough for people and too coarse for tests.
	zerolog.TimeFieldFormat = time.RFC3339Nano
	switch format {
	case "auto", "":
		if j := systemd.OnStderr(); j != nil && f == os.Stderr { // f is stderr except in tests
			return journalWriter{j}, nil
		}
		if !term.IsTerminal(int(f.Fd())) {
			return levels(visibleWriter{f}), nil
		}
	case "json":
		return levels(visibleWriter{f}), nil
	case "console":
	default:
		return nil, fmt.Errorf("%q: auto, json or console", format)
	}
	colour := term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	return levels(zerolog.ConsoleWriter{
		Out: f, TimeFormat: time.TimeOnly, NoColor: !colour,
		// Strings in fields are quoted by the writer itself; messages and lists not.
		FormatPrepare:    visibleMessage,
		FormatFieldValue: func(v any) string { return ipc.Visible(fmt.Sprintf("%s", v)) },
	}), nil
}

// levels is w for lines of every level.
func levels(w io.Writer) zerolog.LevelWriter { return zerolog.LevelWriterAdapter{Writer: w} }

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

// A journalWriter is a zerolog.LevelWriter.
type journalWriter struct{ journal *systemd.Journal }

func (w journalWriter) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, p) }

func (w journalWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	return len(p), w.journal.Send(level.String(), p)
}
