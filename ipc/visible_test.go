package ipc

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestWhatATerminalIsShown(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "client keys \"ä\" \\x1b 漢字 🙂": "client keys \"ä\" \\x1b 漢字 🙂",
		"\x1b]0;title\a\x1b[2J": `\x1b]0;title\a\x1b[2J`,
		"a\r\nb\tc\x00\x7f":     `a\r\nb\tc\x00\x7f`,
		"\u009b31m\u0085":       `\u009b31m\u0085`,
		"\u202egnp.exe\u2066":   `\u202egnp.exe\u2066`,
		"\x9b\xff\xe4\xb8":      `\x9b\xff\xe4\xb8`,
		"\u2028\u200b\u00a0":    `\u2028\u200b\u00a0`,
		"\ufffd\U000e0041":      "\ufffd" + `\U000e0041`,
	} {
		if got := Visible(s); got != want {
			t.Errorf("%q is shown as %s, want %s", s, got, want)
		}
	}
	if got := VisibleLines("a\tb\nc\r\x1b\n"); got != "a\tb\nc\\r\\x1b\n" {
		t.Errorf("lines: %q", got)
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("\x1b]0;x\a\u202e\x9b\U000e0041")
	f.Fuzz(func(t *testing.T, s string) {
		shown := Visible(s)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", s, shown)
		}
		if Visible(shown) != shown {
			t.Errorf("%q is shown as %q and then otherwise", s, shown)
		}
		// A program reads from JSON what it would have read anyway.
		b, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]string
		escaped := VisibleJSON(b)
		if json.Unmarshal(b, &before) != nil || json.Unmarshal(escaped, &after) != nil {
			t.Fatalf("%q is no JSON", escaped)
		}
		for k, v := range before {
			if after[k] != v {
				t.Errorf("%q is read as %q", v, after[k])
			}
		}
		if Visible(string(escaped)) != string(escaped) {
			t.Errorf("JSON is shown as %q", escaped)
		}
	})
}
