package dialect

import (
	"bytes"
	"strconv"
	"strings"
)

// EnvName is the variable that tokens are passed in.
const EnvName = "BLOQ_ACCESS_TOKEN"

// asCurl is a line of curl's configuration (curl(1), -K), so that the token is
// in no argument: `bloq-token curl | curl -K - URL`.
func asCurl(t Token) []byte {
	return append(append([]byte(`header = "Authorization: Bearer `), curlQuote(t.Value)...), '"')
}

var curlEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\v", `\v`)

// curlQuote escapes what curl reads otherwise between double quotes.
func curlQuote(b []byte) []byte {
	return []byte(curlEscapes.Replace(string(b)))
}

// asEnv is for `eval "$(bloq-token env)"` in a POSIX shell.
func asEnv(t Token) []byte {
	return append(append([]byte(EnvName+"="), shellQuote(t.Value)...), "; export "+EnvName...)
}

// shellQuote makes one word of b: between single quotes a shell reads nothing.
func shellQuote(b []byte) []byte {
	quoted := bytes.ReplaceAll(b, []byte("'"), []byte(`'\''`))
	return append(append([]byte("'"), quoted...), '\'')
}

// quoted shows what somebody else has typed, on one line of a terminal.
func quoted(s string) string { return strconv.QuoteToASCII(s[:min(len(s), 64)]) }
