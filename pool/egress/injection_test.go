package egress

import (
	"testing"

	"paddock/internal/tenant"
)

func TestParseInjection(t *testing.T) {
	good := tenant.Injection{Host: "API.Example.com", Header: "x-api-key", Prefix: "Key ", Secret: "KEY"}
	if inj, err := ParseInjection(good); err != nil || inj.asked.String() != "api.example.com:80" || inj.to.String() != "api.example.com:443" ||
		inj.header != "X-Api-Key" {
		t.Errorf("%+v, %v", inj, err)
	}
	if inj, err := ParseInjection(tenant.Injection{Host: "[2606:4700::1]:8443", Header: "Cookie", Secret: "KEY"}); err != nil ||
		inj.asked != inj.to || inj.to.String() != "[2606:4700::1]:8443" {
		t.Errorf("%+v, %v", inj, err)
	}
	for what, change := range map[string]func(*tenant.Injection){
		"no host": func(in *tenant.Injection) { in.Host = "" }, "any host": func(in *tenant.Injection) { in.Host = "*" },
		"below": func(in *tenant.Injection) { in.Host = "*.example.com" }, "a URL": func(in *tenant.Injection) { in.Host = "http://a.example" },
		"a short address": func(in *tenant.Injection) { in.Host = "127.1" }, "port 0": func(in *tenant.Injection) { in.Host = "a.example:0" },
		"no header": func(in *tenant.Injection) { in.Header = "" }, "Host": func(in *tenant.Injection) { in.Header = "host" },
		"a line's end": func(in *tenant.Injection) { in.Header = "X\r\nY" }, "length": func(in *tenant.Injection) { in.Header = "content-length" },
		"a connection's": func(in *tenant.Injection) { in.Header = "proxy-authorization" },
		"a bad prefix":   func(in *tenant.Injection) { in.Prefix = "a\r\nb: " }, "a spaced prefix": func(in *tenant.Injection) { in.Prefix = " x" },
		"no secret": func(in *tenant.Injection) { in.Secret = "" },
	} {
		in := good
		change(&in)
		if inj, err := ParseInjection(in); err == nil {
			t.Errorf("%s: %+v", what, inj)
		}
	}
	twice := good
	twice.Host, twice.Header = "api.example.com:80", "X-API-KEY"
	if err := CheckInjections([]tenant.Injection{good, twice}); err == nil {
		t.Error("one header twice")
	}
	twice.Header = "other"
	if err := CheckInjections([]tenant.Injection{good, twice}); err != nil {
		t.Error(err)
	}
}
