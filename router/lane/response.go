package lane

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// large is the size from which a part of an answer is written at once: whoever writes it waits for the caller then, as a
// handler with a large answer should.
const large = 64 << 10

// response is the answer to a plain request, in memory that is used again. It implements http.ResponseWriter, and
// SetReadDeadline and SetWriteDeadline, which have no meaning here, for http.ResponseController.
type response struct {
	c      *conn
	header http.Header
	out    []byte // what is to be written: head and body, or only the body while the head is open
	status int    // 0: the handler has not said
	length int64  // that the header promises; -1: none
	body   int64  // bytes of body so far
	headed bool   // the head is in out, or written
	last   bool   // the connection ends with this answer
	err    error  // of the connection
}

func (w *response) reset() {
	if w.header == nil {
		w.header = make(http.Header, 12)
	}
	clear(w.header)
	if cap(w.out) > 2*large {
		w.out = nil
	}
	*w = response{c: w.c, header: w.header, out: w.out[:0], length: -1}
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Interim answers are not sent.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	if v := w.header["Content-Length"]; len(v) == 1 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		}
	}
	if !w.hasBody() {
		w.length = 0
	}
	if w.length >= 0 {
		w.appendHead()
	}
}

func (w *response) hasBody() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case !w.hasBody():
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.body+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	}
	w.body += int64(len(p))
	if len(p) < large || !w.headed {
		w.out = append(w.out, p...)
		return len(p), w.err
	}
	w.flush()
	w.write(p)
	return len(p), w.err
}

// SetReadDeadline does nothing: the request is all there.
func (w *response) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: the connection has one.
func (w *response) SetWriteDeadline(time.Time) error { return nil }

func (w *response) write(p []byte) {
	if w.err == nil && len(p) > 0 {
		_, w.err = w.c.nc.Write(p)
	}
}

func (w *response) flush() {
	w.write(w.out)
	w.out = w.out[:0]
}

// finish sends what is left and says whether the connection can go on.
func (w *response) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.headed {
		collected := slices.Clone(w.out)
		if len(collected) > 0 && w.header["Content-Type"] == nil {
			w.header["Content-Type"] = []string{http.DetectContentType(collected)}
		}
		w.length, w.out = int64(len(collected)), w.out[:0]
		w.appendHead()
		w.out = append(w.out, collected...)
	}
	w.flush()
	return w.err == nil && !w.last && w.body == w.length
}

// appendHead appends the status line and the header in its final form.
func (w *response) appendHead() {
	w.headed = true
	w.last = w.c.srv.closing.Load() || httpguts.HeaderValuesContainsToken(w.header["Connection"], "close")
	b := append(w.out, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(w.status)...)
	b = append(b, "\r\n"...)
	var few [16]string
	names := few[:0]
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	if w.hasBody() && w.header["Content-Length"] == nil {
		b = w.appendLength(b)
	}
	for _, name := range names {
		if name != "Content-Length" {
			b = appendField(b, name, w.header[name])
		} else if w.hasBody() {
			b = w.appendLength(b)
		}
	}
	if w.last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Date: "...)
	b = w.c.appendDate(b)
	w.out = append(b, "\r\n\r\n"...)
}

func (w *response) appendLength(b []byte) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, w.length, 10)
	return append(b, "\r\n"...)
}

// appendField appends one field, a line per value, as net/http would: no name that is none, no line breaks in values. What
// speaks of the connection or the body's length is the lane's own to say.
func appendField(b []byte, name string, values []string) []byte {
	switch name {
	case "Connection", "Transfer-Encoding", "Trailer", "Date":
		return b
	}
	if !httpguts.ValidHeaderFieldName(name) {
		return b
	}
	for _, v := range values {
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, oneLine(v)...)
		b = append(b, "\r\n"...)
	}
	return b
}

var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

func oneLine(v string) string {
	if !all(v, inValue) && strings.ContainsAny(v, "\r\n") {
		v = lineBreaks.Replace(v)
	}
	return strings.Trim(v, " \t")
}
