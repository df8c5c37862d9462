package ipc

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Visible returns s as one line that a terminal shows and does not obey: what is
// not printable (controls, C1 among them, newlines, marks that turn the direction
// of writing, bytes that are not UTF-8) is escaped as Go escapes it. Every text
// from outside passes through here on its way to a person.
func Visible(s string) string { return escape(s, "", goEscape) }

// VisibleLines is Visible for a text of several lines and columns.
func VisibleLines(s string) string { return escape(s, "\n\t", goEscape) }

// VisibleJSON is Visible for a JSON text: the escapes are JSON's own, so that a
// program reads the same values.
func VisibleJSON(b []byte) []byte { return []byte(escape(string(b), "\n\t", jsonEscape)) }

// escape replaces what is neither printable nor in keep.
func escape(s, keep string, replace func([]byte, string) []byte) string {
	var out []byte
	done := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) || isIn(r, keep) {
			i += size
			continue
		}
		out = replace(append(out, s[done:i]...), s[i:i+size])
		i += size
		done = i
	}
	if done == 0 {
		return s
	}
	return string(append(out, s[done:]...))
}

func isIn(r rune, set string) bool {
	for _, c := range set {
		if c == r {
			return true
		}
	}
	return false
}

func goEscape(out []byte, char string) []byte {
	quoted := strconv.Quote(char)
	return append(out, quoted[1:len(quoted)-1]...)
}

// jsonEscape takes it that controls and bytes that are not UTF-8 lie in strings.
func jsonEscape(out []byte, char string) []byte {
	r, _ := utf8.DecodeRuneInString(char)
	units := []rune{r}
	if a, b := utf16.EncodeRune(r); a != utf8.RuneError {
		units = []rune{a, b}
	}
	const hex = "0123456789abcdef"
	for _, u := range units {
		out = append(out, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	return out
}
