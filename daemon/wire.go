package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

// codes are the words of PROTOCOL.md section 3 for what profiles report.
var codes = map[profile.Kind]ipc.Code{
	profile.Internal:      ipc.CodeInternal,
	profile.BadRequest:    ipc.CodeBadRequest,
	profile.NeedsLogin:    ipc.CodeNeedsLogin,
	profile.NeedsUnlock:   ipc.CodeLocked,
	profile.Unavailable:   ipc.CodeUnavailable,
	profile.Configuration: ipc.CodeConfiguration,
}

// errStopping is answered by breaking the connection: the client then asks the
// daemon that comes next.
var errStopping = &ipc.Problem{Code: ipc.CodeUnavailable, Detail: profile.ErrStopping.Error()}

// wire is err as the socket tells it; nil for nil.
func wire(err error) *ipc.Problem {
	var p *profile.Problem
	switch {
	case err == nil:
		return nil
	case errors.Is(err, profile.ErrStopping):
		return errStopping
	case errors.As(err, &p):
		return &ipc.Problem{Code: codes[p.Kind], Detail: p.Detail, Hint: p.Hint, Passphrase: p.Passphrase}
	}
	return &ipc.Problem{Code: ipc.CodeInternal, Detail: err.Error()}
}

func badRequest(detail string) *ipc.Problem {
	return &ipc.Problem{Code: ipc.CodeBadRequest, Detail: detail}
}

func fail(w http.ResponseWriter, p *ipc.Problem) {
	abortIfStopping(p)
	tellCode(w, p)
	server.Problem(w, *p)
}

// abortIfStopping breaks the connection without a byte, which makes a client ask
// again: the next daemon may be there by then.
func abortIfStopping(p *ipc.Problem) {
	if p == errStopping {
		panic(http.ErrAbortHandler)
	}
}

// decode reads a JSON body strictly: an unknown member is a newer client's wish,
// and must not be dropped in silence. It is not a json.Decoder, which would keep a
// copy of the body, secrets included.
func decode(r *http.Request, v any) *ipc.Problem {
	body := server.Body(r)
	var members map[string]skipped
	if err := json.Unmarshal(body, &members); err != nil {
		return badRequest("body is not the JSON that this route takes")
	}
	for name := range members {
		if !hasMember(v, name) {
			return badRequest(fmt.Sprintf("body: unknown field %q", name))
		}
	}
	err := json.Unmarshal(body, v)
	// The library's text quotes the value, which may be a secret.
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return badRequest(fmt.Sprintf("body: %s must be a %s", typed.Field, typed.Type))
	}
	if err != nil {
		return badRequest("body is not the JSON that this route takes")
	}
	return nil
}

// A skipped is a value that nothing reads.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }

// hasMember reports whether the struct that v points to has a field for name.
func hasMember(v any, name string) bool {
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if strings.EqualFold(tag, name) { // as the library does
			return true
		}
	}
	return false
}
