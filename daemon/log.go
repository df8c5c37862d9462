package daemon

import (
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
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
		// The function looks at stderr; f is no other outside of tests.
		if native, err := journal.StderrIsJournalStream(); err == nil && native && f == os.Stderr {
			return zerolog.New(journalWriter{journal.Send}), nil
		}
		if !term.IsTerminal(int(f.Fd())) {
			return zerolog.New(f).With().Timestamp().Logger(), nil
		}
	case "json":
		return zerolog.New(f).With().Timestamp().Logger(), nil
	case "console":
	default:
		return zerolog.Nop(), fmt.Errorf("%q: auto, json or console", format)
	}
	colour := term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	return zerolog.New(zerolog.ConsoleWriter{Out: f, TimeFormat: time.TimeOnly, NoColor: !colour}).With().Timestamp().Logger(), nil
}
