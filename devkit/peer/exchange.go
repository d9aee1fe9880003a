// One HTTP/1.1 request and its response on an open connection, written by hand so that what is sent is what was
// asked for, odd or not, and nothing is repeated.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// request is what is sent: no body, and no header but Host and those listed.
type request struct {
	method  string
	target  string // as it stands in the request line
	host    string
	headers []string // "Name: value", in this order
}

// requestFor is a plain GET of a URL and the destination it goes to.
func requestFor(text string) (request, destination, error) {
	location, err := url.Parse(text)
	if err != nil || location.Hostname() == "" || location.Scheme != "http" && location.Scheme != "https" {
		return request{}, destination{}, usageError(fmt.Sprintf("%q is no http or https URL", text))
	}
	secure := location.Scheme == "https"
	port := location.Port()
	switch {
	case port != "":
	case secure:
		port = "443"
	default:
		port = "80"
	}
	sent := request{method: http.MethodGet, target: location.RequestURI(), host: location.Host}
	return sent, destination{host: location.Hostname(), port: port, secure: secure, serverName: location.Hostname()}, nil
}

func (r request) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.target, r.host)
	for _, header := range r.headers {
		text.WriteString(header + "\r\n")
	}
	text.WriteString("\r\n")
	return text.String()
}

// fetch sends a request and reads the response, its body into sink. A status other than 2xx is a statusError, which
// comes with a complete response; any other error carries its stage and comes with the response as far as there is one.
func (c *connection) fetch(ctx context.Context, sent request, sink io.Writer) (*http.Response, error) {
	release := c.within(ctx)
	defer release()
	if _, err := io.WriteString(c, sent.String()); err != nil {
		return nil, inStage(ctx, stageHTTP, err)
	}
	response, err := c.finalResponse(sent.method)
	if err != nil {
		return nil, inStage(ctx, stageHTTP, err)
	}
	if _, err := io.Copy(sink, response.Body); err != nil {
		return response, inStage(ctx, stageHTTP, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return response, statusError(response.Status)
	}
	return response, nil
}

// finalResponse reads a response head and passes over the informational ones.
func (c *connection) finalResponse(method string) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
}

// fetchOnce fetches on a connection of its own. The caller runs finish, which closes it, once it has taken the time.
func fetchOnce(ctx context.Context, to destination, sent request, sink io.Writer) (
	response *http.Response, took timing, finish func(), err error,
) {
	conn, took, err := open(ctx, to)
	if err != nil {
		return nil, took, func() {}, err
	}
	response, err = conn.fetch(ctx, sent, sink)
	if complete(err) {
		return response, took, conn.finish, err
	}
	return response, took, conn.abandon, err
}

// complete reports whether a fetch read its response to the end, whatever the response said.
func complete(err error) bool {
	var status statusError
	return err == nil || errors.As(err, &status)
}

// withDefaultPort adds a port to an address that has none.
func withDefaultPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), port)
}
