"""Devices: fetch a model, train, encode, sign, publish; and a fleet of many of them. Never imports ``stream_apps``."""
