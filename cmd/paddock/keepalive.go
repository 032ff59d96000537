package main

import "google.golang.org/grpc/keepalive"

// enforcement lets routers ask as often as clientKeepalive does: the default would take that for an attack.
func enforcement() keepalive.EnforcementPolicy {
	return keepalive.EnforcementPolicy{MinTime: nodePing / 2, PermitWithoutStream: true}
}

func serverKeepalive() keepalive.ServerParameters {
	return keepalive.ServerParameters{Time: nodePing, Timeout: nodePingTimeout}
}

func clientKeepalive() keepalive.ClientParameters {
	return keepalive.ClientParameters{Time: nodePing, Timeout: nodePingTimeout, PermitWithoutStream: true}
}
