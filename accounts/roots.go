package accounts

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
)

// UnknownAuthority reports whether err says that a server's certificate comes from
// an authority that is not trusted.
func UnknownAuthority(err error) bool {
	var unknown x509.UnknownAuthorityError
	var none x509.SystemRootsError
	return errors.As(err, &unknown) || errors.As(err, &none)
}

// otherRootsMayHelp reports whether err may be due to certificates that were read too
// long ago. An authority that was renewed with the same key counts as expired, not
// as unknown.
func otherRootsMayHelp(err error) bool {
	var invalid x509.CertificateInvalidError
	return UnknownAuthority(err) || errors.As(err, &invalid)
}

// Trusts reports whether the client trusts exactly the certificates in roots now. It
// may have read others since it was made.
func (c *Client) Trusts(roots *x509.CertPool) bool {
	return sameRoots(c.http.Load().Transport.(*http.Transport).TLSClientConfig.RootCAs, roots)
}

// sameRoots reports whether a and b trust the same certificates. A nil pool is the
// system's, as Go has read it.
func sameRoots(a, b *x509.CertPool) bool {
	return a == b || orSystem(a).Equal(orSystem(b))
}

func orSystem(pool *x509.CertPool) *x509.CertPool {
	if pool == nil {
		pool, _ = x509.SystemCertPool()
	}
	if pool == nil {
		pool = x509.NewCertPool()
	}
	return pool
}

// send makes the call, and makes it again if that is safe and another set of
// certificates is trusted now. One from which a file was left out is not kept,
// unless it is the one that helps.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	a, err := c.sendBy(ctx, c.http.Load(), k)
	if c.options.Renew == nil || !otherRootsMayHelp(err) {
		return a, err
	}
	roots, refused := c.options.Renew()
	if roots != nil && !c.Trusts(roots) {
		o := c.options
		o.RootCAs = roots
		h := newHTTP(o)
		if a, err = c.sendBy(ctx, h, k); err == nil || refused == nil {
			c.http.Store(h)
		}
	}
	var e *Error
	if refused != nil && otherRootsMayHelp(err) && errors.As(err, &e) {
		e.Err = fmt.Errorf("%w; %w", e.Err, refused)
	}
	return a, err
}

func (c *Client) sendBy(ctx context.Context, h *http.Client, k call) (*http.Response, error) {
	r, err := k.request(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.op, err)
	}
	r.Header.Set("User-Agent", c.options.UserAgent)
	a, err := h.Do(r)
	if err != nil {
		return nil, failedCall(k.op, err)
	}
	return a, nil
}
