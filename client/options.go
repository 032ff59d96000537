package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Options say where the service is and who asks. Address and Key are needed; the zero value of all else is the usual.
type Options struct {
	// Address is "host:port", or "http://host:port" or "https://host:port", of the listener that speaks both HTTP and gRPC. The
	// other one serves all but Web.
	Address string
	// Key is the API key. It is sent to Address and nowhere else.
	Key string
	// Tenant is whom the calls act for, with an operator's key. Other keys have their tenant.
	Tenant string
	// TLS is how the service is known. nil: in the clear, or, where Address begins with "https:", by the system's authorities.
	TLS *tls.Config
	// UserAgent stands before this package's own in what is sent.
	UserAgent string
	// Retry bounds how often is repeated what has not started.
	Retry RetryPolicy
	// MaxAnswerBytes bounds one answer, its logs included. 0: DefaultMaxAnswerBytes.
	MaxAnswerBytes int
	// Dial makes connections; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// DefaultMaxAnswerBytes leaves room for the largest value that a tenant may be allowed and its logs.
const DefaultMaxAnswerBytes = 64 << 20

// userAgent is how this package names itself.
const userAgent = "paddock-client-go/1"

// The defaults of RetryPolicy.
const (
	DefaultAttempts   = 3
	DefaultMinBackoff = 50 * time.Millisecond
	DefaultMaxBackoff = 2 * time.Second
	DefaultMaxWait    = 30 * time.Second
)

// RetryPolicy bounds repeating. Only failures of the kinds Limited and NoCapacity that say that nothing has started are
// repeated, only while the context has time for the wait, and only while most calls of the Client succeed: when many fail, each is
// tried once, so that repeating does not keep down a service that has too much to do.
type RetryPolicy struct {
	// Attempts is how often a call is made in all. 0: DefaultAttempts; 1: no call is repeated.
	Attempts int
	// MinBackoff and MaxBackoff bound the wait where the service states none; it doubles and has jitter.
	MinBackoff, MaxBackoff time.Duration
	// MaxWait is the longest wait, stated by the service, that is waited for. A longer one is the caller's to decide on.
	MaxWait time.Duration
}

func (p RetryPolicy) orDefaults() RetryPolicy {
	or := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	if p.Attempts <= 0 {
		p.Attempts = DefaultAttempts
	}
	or(&p.MinBackoff, DefaultMinBackoff)
	or(&p.MaxBackoff, DefaultMaxBackoff)
	or(&p.MaxWait, DefaultMaxWait)
	p.MaxBackoff = max(p.MaxBackoff, p.MinBackoff)
	return p
}

// complete checks the options and fills in what is not said. Address is host:port afterwards.
func (o Options) complete() (Options, error) {
	if o.Address == "" {
		return o, errors.New("client: Address is empty: give host:port, or http://host:port or https://host:port")
	}
	if o.Key == "" {
		return o, errors.New("client: Key is empty: give an API key (paddock keys create makes one)")
	}
	if strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return o, errors.New("client: Key has characters that no key has: was it read with its line end?")
	}
	if strings.Contains(o.Address, "://") {
		if err := o.byURL(); err != nil {
			return o, err
		}
	}
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return o, fmt.Errorf("client: Address %q: %w: give host:port, or http://host:port or https://host:port", o.Address, err)
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
	}
	if o.MaxAnswerBytes <= 0 {
		o.MaxAnswerBytes = DefaultMaxAnswerBytes
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	o.UserAgent = strings.TrimSpace(o.UserAgent + " " + userAgent)
	o.Retry = o.Retry.orDefaults()
	return o, nil
}

// byURL takes apart an Address that is a URL.
func (o *Options) byURL() error {
	u, err := url.Parse(o.Address)
	switch {
	case err != nil:
		return fmt.Errorf("client: Address: %w", err)
	case u.Hostname() == "":
		return fmt.Errorf("client: Address %q has no host", o.Address)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("client: Address %q is more than scheme, host and port", u.Redacted())
	}
	port := u.Port()
	switch u.Scheme {
	case "http":
		if o.TLS != nil {
			return fmt.Errorf("client: Address %q is in the clear and TLS is set: use https://", o.Address)
		}
		if port == "" {
			port = "80"
		}
	case "https":
		if o.TLS == nil {
			o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if port == "" {
			port = "443"
		}
	default:
		return fmt.Errorf("client: Address %q: the scheme is http or https", o.Address)
	}
	o.Address = net.JoinHostPort(u.Hostname(), port)
	return nil
}
