package router

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/time/rate"

	"paddock/internal/errs"
)

// Bounds on telling a connection that it is one too many. Who does not listen, or comes with too many others, is not told.
const (
	refusalTime    = time.Second
	refusalsAtOnce = 64
	refusalRead    = 64 << 10 // of what the caller had sent already: with it unread, the kernel would throw the answer away
)

// door is a listener that takes so many connections from an address, and so many in all. One too many is told so in its own
// protocol and closed; it is never left waiting unseen.
type door struct {
	net.Listener
	crowd   *crowd
	refusal func(said string) []byte // nil: the connection ends without a word
	refused func(why string)         // counts
	log     *slog.Logger
	seldom  *rate.Limiter // of the log's lines
	telling chan struct{}
}

// newDoor makes a door of l. name is the listener's in log and metrics.
func (r *Router) newDoor(name string, l net.Listener, refusal func(said string) []byte) *door {
	return &door{
		Listener: l, crowd: newCrowd(r.cfg.MaxConns, r.cfg.MaxConnsPerAddress), refusal: refusal,
		refused: func(why string) { r.metrics.ConnectionRefused(name, why) },
		log:     r.log.With("listener", name), seldom: rate.NewLimiter(rate.Every(10*time.Second), 1),
		telling: make(chan struct{}, refusalsAtOnce),
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		leave, why := d.crowd.enter(c.RemoteAddr().String())
		if why == "" {
			return &counted{Conn: c, leave: leave}, nil
		}
		d.refused(why)
		said := d.crowd.complaint(why, "connections")
		if d.seldom.Allow() {
			d.log.Warn("connection refused", "from", c.RemoteAddr().String(), "why", said)
		}
		d.refuse(c, said)
	}
}

// refuse says why and closes, without holding up who is next.
func (d *door) refuse(c net.Conn, said string) {
	if d.refusal == nil {
		c.Close()
		return
	}
	select {
	case d.telling <- struct{}{}:
	default:
		c.Close()
		return
	}
	go func() {
		defer func() { <-d.telling }()
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(refusalTime))
		if _, err := c.Write(d.refusal(said)); err != nil {
			return
		}
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.CopyN(io.Discard, c, refusalRead)
	}()
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// refusalHTTP is the answer of HTTP/1.1 to a request that nobody has read.
func refusalHTTP(said string) []byte {
	e := errs.New(errs.NoCapacity, "%s", said)
	e.Cause, e.RetryAfter = "connections", time.Second
	id := newCallID()
	res := http.Response{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{hCallID: {string(id)}}, Close: true}
	status, body := problemInto(res.Header, id, e)
	res.StatusCode, res.ContentLength, res.Body = status, int64(len(body)), io.NopCloser(bytes.NewReader(body))
	var b bytes.Buffer
	_ = res.Write(&b)
	return b.Bytes()
}

// refusalGRPC ends an HTTP/2 connection before its first request, with the reason in it.
func refusalGRPC(said string) []byte {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings()
	_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(said))
	return b.Bytes()
}
