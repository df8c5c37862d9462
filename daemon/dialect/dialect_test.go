package dialect

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bloq-agent/ipc"
)

var update = flag.Bool("update", false, "write the golden files")

func sample() Token {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))
	value := append(make([]byte, 0, 64), "eyJ.eyJ.sig"...)
	return Token{Profile: "work", Value: value, IssuedAt: at, Expiry: at.Add(time.Hour), RefreshAt: at.Add(33 * time.Minute), Generation: 7}
}

func TestGolden(t *testing.T) {
	problems := map[string]*ipc.Problem{
		"ok":          nil,
		"needs-login": {Code: ipc.CodeNeedsLogin, Detail: "work: needs login", Hint: "bloq-agent login --profile work"},
		"unavailable": {Code: ipc.CodeUnavailable, Detail: "work: no valid token: refresh: 503 Service Unavailable"},
	}
	for name, render := range all {
		for state, problem := range problems {
			tok := sample()
			if problem != nil {
				tok = Token{}
			}
			a := render(ipc.Call{}, tok, problem)
			got := "exit " + string(rune('0'+a.Exit)) + "\n-- stdout --\n" + string(a.Stdout) + "-- stderr --\n" + string(a.Stderr)
			file := filepath.Join("testdata", name+"."+state+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%s: got\n%s\nwant\n%s (%v)", file, got, want, err)
			}
		}
	}
}

// Readers share the token's bytes; rendering must not write behind them.
func TestRenderingLeavesTheTokenAlone(t *testing.T) {
	for name, render := range all {
		tok := sample()
		whole := tok.Value[:cap(tok.Value)]
		before := string(whole)
		a := render(ipc.Call{}, tok, nil)
		for i := range a.Stdout {
			a.Stdout[i] = 'x'
		}
		if string(whole) != before {
			t.Errorf("%s wrote into the token: %q", name, whole)
		}
	}
}
