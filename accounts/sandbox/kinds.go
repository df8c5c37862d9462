package sandbox

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// faultKinds do the failing. A kind is one entry here.
//
//	status   an answer with Status, Header and Body: errors, redirects, pages
//	half     the same, cut in the middle of Body
//	drip     the same, a byte a second
//	claims   a grant whose access token has other Claims
//	huge     200 and a body of 1 GiB
//	bomb     200 and 1 GiB of zeros in gzip
//	hang     nothing, until the client goes away
//	reset    the connection breaks (TCP RST): without a word, or after the head
//	         of an answer with Status and Header
var faultKinds = map[string]func(*Server, Fault, http.ResponseWriter, *http.Request){
	"status": func(_ *Server, f Fault, w http.ResponseWriter, _ *http.Request) {
		f.head(w)
		_, _ = w.Write(f.body()) // the client has gone if this fails
	},
	"half": func(_ *Server, f Fault, w http.ResponseWriter, _ *http.Request) {
		b := f.body()
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		f.head(w)
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"drip": func(s *Server, f Fault, w http.ResponseWriter, r *http.Request) {
		b := f.body()
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		f.head(w)
		for i := range b {
			if _, err := w.Write(b[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			case <-s.closed:
				return
			}
		}
	},
	"claims": claimsFault,
	"huge": func(_ *Server, _ Fault, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = io.CopyN(w, zeros{}, 1<<30) // ends when the client has had enough
	},
	"bomb": func(_ *Server, _ Fault, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		for range bombMembers {
			if _, err := w.Write(bombMember()); err != nil {
				return // the client has had enough
			}
		}
	},
	"hang": func(s *Server, _ Fault, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-s.closed:
		}
	},
	"reset": func(_ *Server, f Fault, w http.ResponseWriter, _ *http.Request) {
		if f.Status != 0 {
			f.head(w)
			_ = http.NewResponseController(w).Flush() // the break comes all the same
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // HTTP/2: as near as it comes
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	},
}

func (f Fault) head(w http.ResponseWriter) {
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(f.Status)
}

func (f Fault) body() []byte {
	if f.BodyBase64 != nil {
		return f.BodyBase64
	}
	return []byte(f.Body)
}

// claimsFault grants a token whose claims are not as they should be. It does
// not look at the refresh token: the fault is in the answer alone.
func claimsFault(s *Server, f Fault, w http.ResponseWriter, _ *http.Request) {
	now := s.config.Now()
	claims := jwt.MapClaims{"iss": "bloq-sandbox", "kind": kindAccess, "iat": now.Unix(), "exp": now.Add(s.config.AccessTTL).Unix()}
	maps.Copy(claims, f.Claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	token, err := signed(s, claims)
	if err != nil {
		internal(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]string{"accessToken": token})
}

// A gzip file may be several, one after the other (RFC 1952 section 2.2). So a
// bomb of 1 GiB is 64 times the same 16 MiB, and costs next to nothing to drop
// again. It is a little shorter than the 1 MiB that a client may take from us.
const bombMembers = 64

var bombMember = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b) // writing to memory cannot fail
	_, _ = io.CopyN(z, zeros{}, 1<<30/bombMembers)
	_ = z.Close()
	return b.Bytes()
})

// zeros is an endless stream of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
