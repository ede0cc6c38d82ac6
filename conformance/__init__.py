"""What every pushsvc client has to do: scenarios, a scripted server, and a runner for both."""
