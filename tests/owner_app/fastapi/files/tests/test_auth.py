import pytest


def test_member_can_log_in_and_out(member):
    assert member.get("/api/auth/me").json()["name"] == "ada"
    assert member.post("/api/auth/logout").status_code == 204
    assert member.get("/api/auth/me").status_code == 401


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_wrong_name_or_password(member, name):
    guess = {"name": name, "password": "guessed it"}
    assert member.post("/api/auth/login", json=guess).status_code == 401


def test_short_password(client):
    short = {"name": "bob", "password": "short"}
    response = client.post("/api/auth/register", json=short)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "password"]


def test_name_is_taken(member):
    again = {"name": "ada", "password": "something else"}
    response = member.post("/api/auth/register", json=again)
    assert response.status_code == 409
    assert response.json() == {"detail": "This name is taken."}
